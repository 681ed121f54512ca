"""The ambulance system (ИС СМП), played by a program."""

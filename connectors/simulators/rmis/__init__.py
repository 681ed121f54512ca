"""The hospitals' and clinics' system (РМИС), played by a program in all its dialects."""

"""The insurance fund (ЕИР ТФОМС), played by a program in all its dialects."""

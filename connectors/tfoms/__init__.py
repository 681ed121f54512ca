"""The insurance fund (ЕИР ТФОМС): whose policy it is, and registers of what was done for whom."""

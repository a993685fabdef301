"""What is measured of mailonce beside rates: its memory, and a far upstream."""

"""Minutes of real traffic through faults at random: what grows, what is lost, what is left behind."""

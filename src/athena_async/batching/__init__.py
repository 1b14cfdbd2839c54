"""How many images make a batch, and when it leaves."""

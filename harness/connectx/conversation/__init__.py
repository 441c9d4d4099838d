"""The conversation log between driver and card, and its replay."""

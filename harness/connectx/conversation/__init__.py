"""Conversation log between driver and card, and its replay."""

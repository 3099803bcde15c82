"""Rows of any known format as conversations in the roles of chat templates."""

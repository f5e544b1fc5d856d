"""The pod that scores: what the user says of it, what is made of that, and what becomes of it."""

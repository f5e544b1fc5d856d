"""What is compared: each module here is a program that loads once and then measures what it is asked to."""

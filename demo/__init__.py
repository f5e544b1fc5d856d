"""The demo: drawn scenes, the small model trained on them, and a run of the whole thing on this machine."""

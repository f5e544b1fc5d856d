"""What the machine has for the job: processors, disk, a folder to work in, connections."""

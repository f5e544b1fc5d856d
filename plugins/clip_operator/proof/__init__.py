"""What proves an output, and whose it is: the manifest, the claim, and who may write where."""

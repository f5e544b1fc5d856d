"""Objects in S3 and stores that speak its protocol, through boto3; whole ones through obstore, too."""

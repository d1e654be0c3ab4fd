"""The web: REST and the function service, over the coordinator of the same process."""

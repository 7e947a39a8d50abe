"""What proves the Helm chart without a cluster: real Helm renders it, schemas and policies judge what came out."""

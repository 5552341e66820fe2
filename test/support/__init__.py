"""What tests share: farms in real processes, a checker that reads files, clusters, disks and users."""

"""The router's pure core in a seeded world of peers, disks, clocks and crashes."""

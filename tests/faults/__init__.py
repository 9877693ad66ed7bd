"""Faults: real servers are killed, clocks turned, disks filled and files spoilt, while clients record what they see."""

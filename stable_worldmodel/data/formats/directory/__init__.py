"""What the writers of directory datasets share: the log of rows, the commit of an episode, recovery, checks."""

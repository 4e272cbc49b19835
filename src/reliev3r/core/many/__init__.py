"""Many tasks in processes of this machine or on a Ray cluster; the results are the same bytes."""

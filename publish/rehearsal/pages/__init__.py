"""HTML pages for people: the repos, their branches and files, and their cards."""

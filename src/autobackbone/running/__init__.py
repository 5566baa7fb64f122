"""Where trainings run: in this process, or in a worker process that is watched and replaced."""

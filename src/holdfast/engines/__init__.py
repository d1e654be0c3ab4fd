"""Engines: how a worker runs attempts.

The process engine keeps a tree: supervisor → guard → nursery → children → whatever those start.
The guard outlives the supervisor, kills what is below it and tells the coordinator; the nursery
forks warm children; a child is one lane and takes its orders one after another. No engine decides
what becomes of a task: it reports what happened to its `ports.EngineListener`.
"""

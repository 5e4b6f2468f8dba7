"""Circuits that are not our simulator: what one must be able to do, and networks that train on one."""

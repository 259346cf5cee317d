"""Tests of the service classes' SCP side."""

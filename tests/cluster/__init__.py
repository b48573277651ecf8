"""Tests on a real Ray, mostly a mock cluster; a package, so that clusters end with its last test."""

"""Tests with Airflow. They are a package, so that its fixtures end with its last test."""

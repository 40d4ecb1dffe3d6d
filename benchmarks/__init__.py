"""Measures store_lib side by side with glance_store; run by ``make bench``, never by a test run."""

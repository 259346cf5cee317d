"""Thousands of connections, aborts and cancelled operations, after which nothing may have grown.

The suite does some hundreds. All of them:

.. code-block:: console

    $ python -m tests.endurance
"""

"""The tables and the first superuser, made where they are missing, in each instance that starts."""

import os


def ready():
    from django.contrib.auth import get_user_model
    from django.core.management import call_command
    from django.db import connection
    from django.db.migrations.executor import MigrationExecutor

    executor = MigrationExecutor(connection)
    if executor.migration_plan(executor.loader.graph.leaf_nodes()):
        call_command("migrate", verbosity=0)
    users = get_user_model().objects
    if (password := os.environ.get("ADMIN_PASSWORD")) and not users.exists():
        users.create_superuser("admin", password=password)

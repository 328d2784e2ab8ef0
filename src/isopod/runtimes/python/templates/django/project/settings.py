"""The smallest settings that serve: no database, no sessions."""

import os

# Of this folder alone; `isopod deploy --env SECRET_KEY=...` gives another.
SECRET_KEY = os.environ.get("SECRET_KEY", "@SECRET_KEY@")
DEBUG = False
ALLOWED_HOSTS = ["*"]  # the gateway passes on what is for this app, and nothing else
ROOT_URLCONF = "project.urls"
WSGI_APPLICATION = "project.wsgi.application"
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.common.CommonMiddleware",
]
USE_TZ = True

"""Django's own settings; the database is PostgreSQL through a driver in Python."""

import os
import ssl

# Where the app is served, both come from outside. A build has neither, and needs none.
SECRET_KEY = os.environ.get("SECRET_KEY", "only-while-it-is-built")
ALLOWED_HOSTS = [".localhost", *os.environ.get("HOSTS", "").split()]
CSRF_TRUSTED_ORIGINS = os.environ.get("ORIGINS", "").split()
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "books",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
WHITENOISE_USE_FINDERS = True
ROOT_URLCONF = "library.urls"
WSGI_APPLICATION = "library.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]


def trust():
    """The authority that vouches for the database, and no other, where one is given."""
    authority = os.environ.get("DATABASE_CA")
    return {"ssl_context": ssl.create_default_context(cadata=authority)} if authority else {}


DATABASES = {
    "default": {
        "ENGINE": "django_pg8000",
        "HOST": os.environ.get("DATABASE_HOST", "localhost"),
        "PORT": int(os.environ.get("DATABASE_PORT", "5432")),
        "NAME": os.environ.get("DATABASE_NAME", "app"),
        "USER": os.environ.get("DATABASE_USER", "app"),
        "PASSWORD": os.environ.get("DATABASE_PASSWORD", ""),
        "OPTIONS": trust(),
        "CONN_MAX_AGE": 60,  # an instance keeps its connection for its next requests
        "CONN_HEALTH_CHECKS": True,
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ, TIME_ZONE = True, "UTC"
STATIC_URL = "static/"

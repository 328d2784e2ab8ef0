"""Which view answers which path."""

from django.http import HttpRequest, HttpResponse
from django.urls import path


def home(_request: HttpRequest) -> HttpResponse:
    return HttpResponse("Hello from Django!\n", content_type="text/plain")


urlpatterns = [path("", home)]

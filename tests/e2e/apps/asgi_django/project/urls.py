import asyncio

from django.http import HttpResponse
from django.urls import path


async def index(request):
    await asyncio.sleep(0.01)
    return HttpResponse("async")


def echo(request):
    return HttpResponse(f"sync {len(request.body)}")


urlpatterns = [path("", index), path("echo", echo)]

from django.http import JsonResponse
from django.views.decorators.csrf import csrf_exempt
from entries.models import Entry


@csrf_exempt
def entries(request):
    """The last hundred; POST with `text` adds one."""
    if request.method == "POST":
        Entry.objects.create(text=request.POST["text"])
    last = Entry.objects.order_by("-id").values_list("text", flat=True)[:100]
    return JsonResponse({"entries": list(last), "number": Entry.objects.count()})

from books.models import Book
from django.db.models import Avg, Count
from django.http import JsonResponse


def shelf(request):
    """All books, or those of `?author=`, and what the database makes of them."""
    books = Book.objects.select_related("author").order_by("title")
    if author := request.GET.get("author"):
        books = books.filter(author__name__iexact=author)
    summary = books.aggregate(number=Count("id"), mean=Avg("price"))
    return JsonResponse(
        {
            "books": [
                {
                    "title": book.title,
                    "author": book.author.name,
                    "price": str(book.price),
                    "added": book.added.isoformat(),
                }
                for book in books[:100]
            ],
            "number": summary["number"],
            "mean": None if summary["mean"] is None else str(round(summary["mean"], 2)),
        }
    )

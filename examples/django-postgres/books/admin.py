from books.models import Author, Book
from django.contrib import admin

admin.site.register(Author)


@admin.register(Book)
class BookAdmin(admin.ModelAdmin):
    list_display = ("title", "author", "price", "added")
    list_filter = ("author",)
    search_fields = ("title", "author__name")

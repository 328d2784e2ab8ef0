from django.db import models


class Entry(models.Model):
    text = models.CharField(max_length=500)
    written = models.DateTimeField(auto_now_add=True)

    def __str__(self):
        return self.text

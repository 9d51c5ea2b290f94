"""What a stream knows beside its events, and the ids of the events that are there already."""

from typing import Any

from django.db import migrations, models


def note_old_ids(apps: Any, schema_editor: Any) -> None:
    """Note up to which number each stream's events have ids that were made in another way."""
    database = schema_editor.connection.alias
    streams = apps.get_model("aggstream", "Stream").objects.using(database)
    events = apps.get_model("aggstream", "Event").objects.using(database)
    for stream in streams.all():
        newest = events.filter(stream=stream).aggregate(newest=models.Max("pk"))["newest"]
        streams.filter(pk=stream.pk).update(old_ids_until=newest or 0)


class Migration(migrations.Migration):
    dependencies = [("aggstream", "0001_initial")]

    operations = [
        migrations.AddField("stream", "known_until", models.BigIntegerField(null=True)),
        migrations.AddField("stream", "is_searched", models.BooleanField(default=False)),
        migrations.AddField("stream", "old_ids_until", models.BigIntegerField(default=0)),
        migrations.AddField("order", "is_unclear", models.BooleanField(default=False)),
        migrations.RunPython(note_old_ids, migrations.RunPython.noop),
    ]

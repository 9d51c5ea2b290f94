"""The project's pages."""

from django.contrib.auth.views import LoginView, LogoutView
from django.urls import path
from orders import views

from aggstream.integrations.django.views import events

urlpatterns = [
    path("", views.page, name="page"),
    path("place/", views.place, name="place"),
    path("events/", events, name="events"),
    path("sign-in/", LoginView.as_view(redirect_authenticated_user=True), name="login"),
    path("sign-out/", LogoutView.as_view(), name="logout"),
]

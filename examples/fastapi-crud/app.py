"""Notes in PostgreSQL: FastAPI with pydantic 1 (2 needs a native library), SQLAlchemy, pg8000."""

import datetime
import functools
import os
import ssl
from collections.abc import Iterator

from fastapi import Depends, FastAPI, HTTPException, Query
from pydantic import BaseModel, constr
from sqlalchemy import URL, create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column


class Base(DeclarativeBase):
    pass


class Note(Base):
    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    text: Mapped[str]
    changed: Mapped[datetime.datetime]


class NoteIn(BaseModel):
    title: constr(min_length=1, max_length=100)
    text: str = ""


class NoteOut(NoteIn):
    id: int
    changed: datetime.datetime

    class Config:
        orm_mode = True


@functools.cache
def engine():
    """Made at the first request that needs it: there is no database while the app is built."""
    env = os.environ
    url = URL.create(
        "postgresql+pg8000",
        username=env.get("DATABASE_USER", "app"),
        password=env.get("DATABASE_PASSWORD"),
        host=env.get("DATABASE_HOST", "localhost"),
        port=int(env.get("DATABASE_PORT", "5432")),
        database=env.get("DATABASE_NAME", "app"),
    )
    authority = env.get("DATABASE_CA")
    more = {"ssl_context": ssl.create_default_context(cadata=authority)} if authority else {}
    made = create_engine(url, connect_args=more, pool_pre_ping=True)
    Base.metadata.create_all(made)
    return made


def database() -> Iterator[Session]:
    with Session(engine()) as session, session.begin():
        yield session


app = FastAPI(title="Notes")


def found(session: Session, number: int) -> Note:
    note = session.get(Note, number)
    if note is None:
        raise HTTPException(404, f"there is no note {number}")
    return note


@app.post("/notes", status_code=201, response_model=NoteOut)
def create(note: NoteIn, session: Session = Depends(database)):
    made = Note(**note.dict(), changed=datetime.datetime.utcnow())
    session.add(made)
    session.flush()
    return made


@app.get("/notes", response_model=list[NoteOut])
def listing(
    containing: str = "", most: int = Query(20, ge=1, le=100), session: Session = Depends(database)
):
    query = select(Note).where(Note.title.contains(containing)).order_by(Note.id).limit(most)
    return session.scalars(query).all()


@app.get("/notes/{number}", response_model=NoteOut)
def read(number: int, session: Session = Depends(database)):
    return found(session, number)


@app.put("/notes/{number}", response_model=NoteOut)
def change(number: int, note: NoteIn, session: Session = Depends(database)):
    kept = found(session, number)
    kept.title, kept.text, kept.changed = note.title, note.text, datetime.datetime.utcnow()
    return kept


@app.delete("/notes/{number}", status_code=204)
def delete(number: int, session: Session = Depends(database)):
    session.delete(found(session, number))

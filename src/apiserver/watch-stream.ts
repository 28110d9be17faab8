/**
 * A watch as a stream of JSON lines. Events are encoded once for each form in which they are asked for, however many
 * watchers there are; a watcher whose socket does not keep up is cut off, and resumes from its last resourceVersion.
 */
import type { ServerResponse } from 'node:http';
import type { KindDeclaration } from '../api/kind-declaration.ts';
import type { KubeObject, Status } from '../api/types.ts';
import type { StoreEntry, StoreEvent, StoreWatch } from '../store/store.ts';
import { decodeObject } from './object-codec.ts';
import { bookmarkText, entryText, type Representation, representationKey } from './representation.ts';

/** Bytes that may wait for a slow reader, besides what it asked for when it came: that may be all there is. */
const MAX_BUFFERED_BYTES = 8 * 1024 * 1024;
const BOOKMARK_INTERVAL_MS = 30_000;

export interface WatchParameters {
  kind: KindDeclaration;
  representation: Representation;
  /** Absent: everything matches. */
  matches?: (object: KubeObject) => boolean;
  bookmarks: boolean;
  timeoutMs: number;
  /** Told once, when the stream has ended for whatever reason. */
  onEnd: () => void;
}

type EventType = 'ADDED' | 'MODIFIED' | 'DELETED';

/** What has been worked out of an event, shared by all its watchers. */
interface EventViews {
  now?: KubeObject;
  before?: KubeObject;
  lines: Map<string, string>;
}
const views = new WeakMap<StoreEvent, EventViews>();

function viewsOf(event: StoreEvent): EventViews {
  let found = views.get(event);
  if (!found) {
    found = { lines: new Map() };
    views.set(event, found);
  }
  return found;
}

export class WatchStream {
  readonly #response: ServerResponse;
  readonly #parameters: WatchParameters;
  readonly #formKey: string;
  readonly #timers: NodeJS.Timeout[] = [];
  #source: StoreWatch | undefined;
  #ended = false;
  /** Bytes of the state, or of the history, that the client began with and has not taken yet. */
  #backlog = 0;
  /** The newest revision the client has been told. */
  #told = 0;

  constructor(response: ServerResponse, parameters: WatchParameters) {
    this.#response = response;
    this.#parameters = parameters;
    this.#formKey = representationKey(parameters.representation);
    response.writeHead(200, { 'content-type': 'application/json', 'cache-control': 'no-cache, private' });
    response.flushHeaders();
    response.once('close', () => this.#finish());
    response.on('error', () => this.#finish());
    this.#timers.push(setTimeout(() => this.end(), parameters.timeoutMs));
    if (parameters.bookmarks) this.#timers.push(setInterval(() => this.#progress(), BOOKMARK_INTERVAL_MS));
  }

  /** The state at the start, as ADDED events. */
  sendInitial(entries: readonly StoreEntry[], revision: number, markEnd: boolean): void {
    const { kind, representation } = this.#parameters;
    const now = Date.now();
    let text = '';
    for (const entry of entries) {
      text += line('ADDED', entryText(kind, representation, entry, entry.revision, now));
      if (text.length > 512 * 1024) {
        this.#response.write(text);
        text = '';
      }
    }
    if (markEnd) text += line('BOOKMARK', bookmarkText(kind, representation, revision, true));
    if (text) this.#response.write(text);
    this.#told = revision;
  }

  /** Events flow until the stream ends; what came through `onEvents` before was the history. */
  follow(source: StoreWatch): void {
    if (this.#ended) {
      source.close();
      return;
    }
    this.#source = source;
    this.#backlog = this.#response.writableLength;
    this.#response.once('drain', () => {
      this.#backlog = 0;
    });
  }

  readonly onEvents = (events: readonly StoreEvent[]): void => {
    if (this.#ended) return;
    let text = '';
    for (const event of events) text += this.#lineFor(event);
    if (!text) return;
    this.#told = events.at(-1)?.revision ?? this.#told;
    this.#response.write(text);
    // Without a source, these are of the past: cut off by their size, the client would come again for the same.
    const isLive = this.#source !== undefined;
    if (isLive && this.#response.writableLength > this.#backlog + MAX_BUFFERED_BYTES)
      this.#response.destroy();
  };

  /** The last line of a watch that cannot go on. */
  fail(status: Status): void {
    if (this.#ended) return;
    this.#response.write(line('ERROR', JSON.stringify(status)));
    this.end();
  }

  end(): void {
    if (this.#ended) return;
    this.#finish();
    this.#response.end();
  }

  #finish(): void {
    if (this.#ended) return;
    this.#ended = true;
    for (const timer of this.#timers) clearTimeout(timer);
    this.#source?.close();
    this.#parameters.onEnd();
  }

  #progress(): void {
    const revision = this.#source?.revision ?? 0;
    if (revision <= this.#told) return;
    const { kind, representation } = this.#parameters;
    this.#response.write(line('BOOKMARK', bookmarkText(kind, representation, revision, false)));
    this.#told = revision;
  }

  /** '' when the event is none of this watcher's business. */
  #lineFor(event: StoreEvent): string {
    const type = this.#typeFor(event);
    if (!type) return '';
    const shared = viewsOf(event);
    const key = `${type}${this.#formKey}`;
    let found = shared.lines.get(key);
    if (found === undefined) {
      const { kind, representation } = this.#parameters;
      // What went is shown as it last was, at the revision of its going.
      const entry = (type === 'DELETED' ? (event.previous ?? event.entry) : event.entry) as StoreEntry;
      found = line(type, entryText(kind, representation, entry, event.revision, Date.now()));
      shared.lines.set(key, found);
    }
    return found;
  }

  /** To a watcher with a selector, what comes into view is new and what leaves it is gone. */
  #typeFor(event: StoreEvent): EventType | undefined {
    const { matches } = this.#parameters;
    if (!matches) return event.type === 'delete' ? 'DELETED' : event.previous ? 'MODIFIED' : 'ADDED';
    const shared = viewsOf(event);
    if (event.entry) shared.now ??= decodeObject(event.entry);
    if (event.previous) shared.before ??= decodeObject(event.previous);
    const isIn = shared.now !== undefined && matches(shared.now);
    const wasIn = shared.before !== undefined && matches(shared.before);
    if (isIn) return wasIn ? 'MODIFIED' : 'ADDED';
    return wasIn ? 'DELETED' : undefined;
  }
}

const line = (type: EventType | 'BOOKMARK' | 'ERROR', object: string): string =>
  `{"type":"${type}","object":${object.trimEnd()}}\n`;

import assert from 'node:assert/strict';
import { EventEmitter } from 'node:events';
import type { ServerResponse } from 'node:http';
import { test } from 'node:test';
import type { KindDeclaration } from '../api/kind-declaration.ts';
import { configMapKind } from '../api/kinds/config-map.ts';
import type { StoreEvent } from '../store/store.ts';
import { negotiate } from './representation.ts';
import { WatchStream } from './watch-stream.ts';

/** A client that takes nothing until it is told to. */
class StuckClient extends EventEmitter {
  writableLength = 0;
  destroyed = false;
  writeHead(): void {}
  flushHeaders(): void {}
  write(text: string): void {
    this.writableLength += text.length;
  }
  end(): void {
    this.emit('close');
  }
  destroy(): void {
    this.destroyed = true;
    this.emit('close');
  }
  takeAll(): void {
    this.writableLength = 0;
    this.emit('drain');
  }
}

let revision = 1;
function events(count: number): StoreEvent[] {
  return Array.from({ length: count }, () => {
    revision++;
    const key = `/registry/configmaps/default/c${revision}`;
    const value = JSON.stringify({
      apiVersion: 'v1',
      kind: 'ConfigMap',
      metadata: { name: `c${revision}`, namespace: 'default' },
      data: { text: 'x'.repeat(1 << 20) },
    });
    return { type: 'put', key, revision, entry: { key, value, createRevision: revision, revision } };
  });
}

function watch(client: StuckClient): WatchStream {
  return new WatchStream(client as unknown as ServerResponse, {
    kind: configMapKind as unknown as KindDeclaration,
    representation: negotiate('application/json', null),
    bookmarks: false,
    timeoutMs: 60_000,
    onEnd: () => {},
  });
}

test('a history of any size is sent; a reader that then does not keep up is cut off', () => {
  const client = new StuckClient();
  const stream = watch(client);
  stream.onEvents(events(20));
  assert.ok(client.writableLength > 20 << 20);
  let closed = false;
  stream.follow({ revision, close: () => (closed = true) });
  stream.onEvents(events(7));
  assert.ok(!client.destroyed);
  stream.onEvents(events(2));
  assert.ok(client.destroyed && closed);
});

test('what was taken counts no more', () => {
  const client = new StuckClient();
  const stream = watch(client);
  stream.onEvents(events(20));
  stream.follow({ revision, close: () => {} });
  client.takeAll();
  stream.onEvents(events(7));
  assert.ok(!client.destroyed);
  stream.onEvents(events(2));
  assert.ok(client.destroyed);
  stream.end();
});

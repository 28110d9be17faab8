import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { EVENTS } from '../api/client.ts';
import { ApiError } from '../api/errors.ts';
import { ManualClock } from '../base/clock.ts';
import { WeftError } from '../base/errors.ts';
import { silentLogger } from '../base/log.ts';
import { EventRecorder, referenceTo } from './event-recorder.ts';
import { MemoryApi } from './testing/memory-api.ts';

const node = { apiVersion: 'v1', kind: 'Node', name: 'n1', uid: 'u1' };

function setUp() {
  const api = new MemoryApi();
  const clock = new ManualClock(Date.parse('2026-01-01T00:00:00Z'));
  const recorder = new EventRecorder({
    client: api,
    component: 'weft-agent',
    host: 'n1',
    clock,
    logger: silentLogger,
  });
  return { api, clock, recorder };
}

test('an Event as kubectl shows it', async () => {
  const { api, recorder } = setUp();
  recorder.event(node, 'Warning', 'RouteRestored', 'route 10.0.1.0/24 was gone');
  await recorder.flush();
  const [event, ...more] = api.all(EVENTS);
  assert.deepEqual(more, []);
  assert.match(event!.metadata.name, /^n1\.[0-9a-f]{16}$/);
  assert.equal(event!.metadata.namespace, 'default');
  assert.deepEqual(event!.involvedObject, node);
  assert.equal(event!.count, 1);
  assert.equal(event!.firstTimestamp, '2026-01-01T00:00:00Z');
  assert.deepEqual(event!.source, { component: 'weft-agent', host: 'n1' });
  const pod = { apiVersion: 'v1', kind: 'Pod', metadata: { name: 'p', namespace: 'web', uid: 'u2' } };
  recorder.event(referenceTo(pod), 'Normal', 'Attached', 'eth0', 'n2');
  await recorder.close();
  assert.equal(api.all(EVENTS)[1]!.metadata.namespace, 'web');
  assert.deepEqual(api.all(EVENTS)[1]!.source, { component: 'weft-agent', host: 'n2' });
});

test('the same again is counted, in one write for all of one go', async () => {
  const { api, clock, recorder } = setUp();
  recorder.event(node, 'Normal', 'A', 'x');
  recorder.event(node, 'Normal', 'A', 'x');
  await recorder.flush();
  await clock.advance(5000);
  for (let i = 0; i < 3; i++) recorder.event(node, 'Normal', 'A', 'x');
  await recorder.flush();
  const [event, ...more] = api.all(EVENTS);
  assert.deepEqual(more, []);
  assert.equal(event!.count, 5);
  assert.equal(event!.lastTimestamp, '2026-01-01T00:00:05Z');
  assert.equal(event!.firstTimestamp, '2026-01-01T00:00:00Z');
  assert.equal(api.log.length, 2);
});

test('an Event that has expired on the server begins anew', async () => {
  const { api, clock, recorder } = setUp();
  recorder.event(node, 'Normal', 'A', 'x');
  await recorder.flush();
  api.remove(EVENTS, `default/${api.all(EVENTS)[0]!.metadata.name}`);
  await clock.advance(7_200_000);
  recorder.event(node, 'Normal', 'A', 'x');
  await recorder.flush();
  const [event] = api.all(EVENTS);
  assert.equal(event!.count, 1);
  assert.equal(event!.firstTimestamp, '2026-01-01T02:00:00Z');
});

test('many alike become one; too many about one object are not told', async () => {
  const { api, recorder } = setUp();
  for (let i = 0; i < 15; i++) recorder.event(node, 'Normal', 'A', `message ${i}`);
  await recorder.flush();
  assert.equal(api.all(EVENTS).length, 11);
  const combined = api.all(EVENTS).at(-1)!;
  assert.equal(combined.message, '(combined from similar events): message 14');
  assert.equal(combined.count, 5);
  for (let i = 0; i < 40; i++) recorder.event(node, 'Normal', `Reason${i}`, 'x');
  await recorder.flush();
  assert.equal(api.all(EVENTS).length, 11 + 10);
  assert.equal(recorder.dropped, 30);
  recorder.event({ ...node, name: 'n2' }, 'Normal', 'A', 'another object is heard');
  await recorder.close();
  assert.equal(api.all(EVENTS).length, 22);
});

test('an unreachable server is tried again; a refusal is not; neither is an error for who speaks', async () => {
  const { api, clock, recorder } = setUp();
  const faults = [
    { error: new WeftError('WEFT_API_UNREACHABLE', 'no') },
    { error: new WeftError('WEFT_API_UNREACHABLE', 'answer lost'), late: true },
  ];
  api.fault = () => faults.shift();
  recorder.event(node, 'Normal', 'A', 'x');
  for (let i = 0; i < 10; i++) {
    await clock.advance(2000);
    await turn();
  }
  await recorder.flush();
  assert.equal(api.all(EVENTS).length, 1);
  const refusal = { kind: 'Status', apiVersion: 'v1', metadata: {}, status: 'Failure', code: 403 } as const;
  api.fault = () => ({ error: new ApiError(refusal) });
  recorder.event(node, 'Normal', 'B', 'x');
  await recorder.flush();
  assert.equal(recorder.dropped, 1);
  api.fault = () => ({ error: new WeftError('WEFT_API_UNREACHABLE', 'no') });
  recorder.event(node, 'Normal', 'C', 'x');
  await recorder.close();
  assert.equal(recorder.dropped, 2);
  recorder.event(node, 'Normal', 'D', 'after the end');
  assert.equal(api.all(EVENTS).length, 1);
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MetricRegistry } from './metrics.ts';

test('the text form, to the letter (exposition format 0.0.4)', async () => {
  const registry = new MetricRegistry({ node: 'n1' });
  const requests = registry.counter({ name: 'requests_total', help: 'Requests.\nAll of them: \\.' });
  const pods = registry.gauge({ name: 'pods', help: 'Pods.' });
  const seconds = registry.histogram({ name: 'seconds', help: 'Time.', buckets: [0.1, 1] });
  requests.inc({ path: 'a"b\\c\nd' });
  requests.inc({ path: 'a"b\\c\nd' }, 2);
  requests.inc({ path: '/' });
  registry.onCollect(() => pods.set(Number.POSITIVE_INFINITY));
  registry.onCollect(async () => Promise.reject(new Error('a collector that fails is passed over')));
  for (const value of [0.05, 0.1, 0.5, 7]) seconds.observe(value, { command: 'ADD' });
  assert.equal(
    await registry.text(),
    String.raw`# HELP requests_total Requests.\nAll of them: \\.
# TYPE requests_total counter
requests_total{node="n1",path="a\"b\\c\nd"} 3
requests_total{node="n1",path="/"} 1
# HELP pods Pods.
# TYPE pods gauge
pods{node="n1"} +Inf
# HELP seconds Time.
# TYPE seconds histogram
seconds_bucket{node="n1",command="ADD",le="0.1"} 2
seconds_bucket{node="n1",command="ADD",le="1"} 3
seconds_bucket{node="n1",command="ADD",le="+Inf"} 4
seconds_sum{node="n1",command="ADD"} 7.65
seconds_count{node="n1",command="ADD"} 4
`,
  );
});

test('no labels, no braces; one name, one metric', async () => {
  const registry = new MetricRegistry();
  registry.gauge({ name: 'up', help: 'Up.' }).set(1);
  assert.match(await registry.text(), /^up 1$/m);
  assert.throws(() => registry.counter({ name: 'up', help: 'Again.' }), /two metrics are called up/);
});

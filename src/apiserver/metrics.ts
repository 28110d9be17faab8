/** Counts of requests and watches, in Prometheus' form. */
import { METRICS_CONTENT_TYPE, MetricRegistry } from '../base/metrics.ts';

export interface MetricSources {
  watches: () => number;
  revision: () => number;
}

const BUCKETS = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5];
/** Distinct kinds of requests that are told apart: labels come from clients, and must not fill the memory. */
const MAX_SERIES = 1000;

export class Metrics {
  readonly #registry = new MetricRegistry();
  readonly #series = new Set<string>();
  readonly #requests = this.#registry.counter({
    name: 'apiserver_request_total',
    help: 'Requests by verb, resource and HTTP code.',
  });
  readonly #seconds = this.#registry.histogram({
    name: 'apiserver_request_duration_seconds',
    help: 'Seconds until a request was answered, watches excepted.',
    buckets: BUCKETS,
  });

  constructor({ watches, revision }: MetricSources) {
    const gauge = (name: string, help: string, value: () => number): void => {
      const metric = this.#registry.gauge({ name, help });
      this.#registry.onCollect(() => metric.set(value()));
    };
    gauge('apiserver_longrunning_requests', 'Watches being served.', watches);
    gauge('weft_store_revision', 'Newest revision of the store.', revision);
    gauge('process_resident_memory_bytes', 'Resident memory.', process.memoryUsage.rss);
  }

  observe(verb: string, resource: string, code: number, seconds: number): void {
    const labels = { verb, resource, code: String(code) };
    const key = Object.values(labels).join(' ');
    if (this.#series.has(key) || this.#series.size < MAX_SERIES) {
      this.#series.add(key);
      this.#requests.inc(labels);
    }
    if (verb !== 'watch') this.#seconds.observe(seconds);
  }

  async text(): Promise<{ text: string; contentType: string }> {
    return { text: await this.#registry.text(), contentType: METRICS_CONTENT_TYPE };
  }
}

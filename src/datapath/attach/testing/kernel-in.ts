/** A kernel whose own namespace ('') is another one: what runs on a node, tried in a namespace made for the test. */
import type { NsPath } from '../../../base/net-objects.ts';
import type { Kernel, Step } from '../../../kernel/types.ts';

/** Methods whose first argument is a namespace. */
const BY_NAMESPACE: ReadonlySet<string> = new Set([
  'dump',
  'watch',
  'routeTo',
  'nftApply',
  'nftList',
  'nftElements',
  'conntrack',
  'conntrackDelete',
  'sysctlRead',
  'listenTcp',
  'connectTcp',
] satisfies Array<keyof Kernel>);

export function kernelIn(kernel: Kernel, ns: NsPath): Kernel {
  const there = (path: NsPath): NsPath => path || ns;
  const steps = (list: Step[]): Step[] => list.map((step) => ({ ...step, ns: there(step.ns) }));
  return new Proxy(kernel, {
    get(target, key) {
      const method = Reflect.get(target, key) as (...args: unknown[]) => unknown;
      if (key === 'run' || key === 'must') return (list: Step[]) => target[key](steps(list));
      if (typeof key === 'string' && BY_NAMESPACE.has(key)) {
        return (path: NsPath, ...rest: unknown[]) => method.call(target, there(path), ...rest);
      }
      return typeof method === 'function' ? method.bind(target) : method;
    },
  });
}

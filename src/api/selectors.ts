/**
 * Label and field selectors, parsed once into predicates.
 *
 * Source: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors, /field-selectors/
 */
import type { KindDeclaration } from './kind-declaration.ts';
import { labelValueProblem, qualifiedNameProblem } from './names.ts';
import { badRequest } from './statuses.ts';
import type { KubeObject } from './types.ts';

export type Predicate<T> = (value: T) => boolean;

const TOKEN = /\s*(==|!=|[=,()!<>]|[^\s=,()!<>]+)/gy;

/** `a=b,c!=d,e in (f,g),h notin (i),j,!k,l>1,m<2`; undefined for the empty selector. Throws a 400. */
export function parseLabelSelector(text: string): Predicate<Record<string, string>> | undefined {
  const fail = (why: string) =>
    badRequest(`unable to parse requirement: ${why} in selector ${JSON.stringify(text.slice(0, 200))}`);
  const tokens: string[] = [];
  TOKEN.lastIndex = 0;
  const trimmed = text.trim();
  while (TOKEN.lastIndex < trimmed.length) {
    const match = TOKEN.exec(trimmed);
    if (!match) throw fail('unexpected character');
    tokens.push(match[1] as string);
  }
  if (tokens.length === 0) return undefined;
  let at = 0;
  const isWord = (token: string | undefined): token is string =>
    token !== undefined && !/^(==|!=|[=,()!<>])$/.test(token);
  const key = (): string => {
    const token = tokens[at++];
    if (!isWord(token)) throw fail(`found '${token ?? ''}', expected: identifier`);
    const problem = qualifiedNameProblem(token);
    if (problem) throw fail(`key ${JSON.stringify(token)}: ${problem}`);
    return token;
  };
  const value = (): string => {
    const token = isWord(tokens[at]) ? (tokens[at++] as string) : '';
    const problem = labelValueProblem(token);
    if (problem) throw fail(`value ${JSON.stringify(token)}: ${problem}`);
    return token;
  };
  const values = (): Set<string> => {
    if (tokens[at++] !== '(') throw fail("expected: '('");
    const found = new Set([value()]);
    while (tokens[at] === ',') {
      at++;
      found.add(value());
    }
    if (tokens[at++] !== ')') throw fail("expected: ')'");
    return found;
  };
  const requirements: Predicate<Record<string, string>>[] = [];
  const requirement = (): Predicate<Record<string, string>> => {
    if (tokens[at] === '!') {
      at++;
      const k = key();
      return (labels) => !Object.hasOwn(labels, k);
    }
    const k = key();
    const operator = tokens[at];
    if (operator === undefined || operator === ',') return (labels) => Object.hasOwn(labels, k);
    at++;
    if (operator === '=' || operator === '==') {
      const v = value();
      return (labels) => Object.hasOwn(labels, k) && labels[k] === v;
    }
    if (operator === '!=') {
      const v = value();
      return (labels) => !Object.hasOwn(labels, k) || labels[k] !== v;
    }
    if (operator === 'in') {
      const set = values();
      return (labels) => Object.hasOwn(labels, k) && set.has(labels[k] as string);
    }
    if (operator === 'notin') {
      const set = values();
      return (labels) => !Object.hasOwn(labels, k) || !set.has(labels[k] as string);
    }
    if (operator === '<' || operator === '>') {
      const bound = tokens[at++] ?? '';
      if (!/^-?\d+$/.test(bound)) throw fail(`for 'Gt', 'Lt' operators, the value must be an integer`);
      return (labels) => {
        const own = Object.hasOwn(labels, k) ? (labels[k] as string) : '';
        if (!/^-?\d+$/.test(own)) return false;
        return operator === '<' ? BigInt(own) < BigInt(bound) : BigInt(own) > BigInt(bound);
      };
    }
    throw fail(`found '${operator}', expected: in, notin, =, ==, !=, gt, lt`);
  };
  for (;;) {
    requirements.push(requirement());
    if (at >= tokens.length) break;
    if (tokens[at++] !== ',') throw fail(`found '${tokens[at - 1]}', expected: ',' or end`);
  }
  return (labels) => requirements.every((r) => r(labels));
}

export interface FieldSelector {
  matches: Predicate<KubeObject>;
  /** The value that `metadata.name` must have, when that is asked: it makes a list a get. */
  name?: string;
}

/** `metadata.name=a,spec.nodeName!=b`; undefined for the empty selector. Throws a 400. */
export function parseFieldSelector(text: string, kind: KindDeclaration): FieldSelector | undefined {
  if (text.trim() === '') return undefined;
  const terms: Predicate<KubeObject>[] = [];
  let name: string | undefined;
  for (const term of splitTerms(text)) {
    const match = /^\s*([^=!\s]+)\s*(==|=|!=)(.*)$/s.exec(term);
    if (!match)
      throw badRequest(`invalid selector: ${JSON.stringify(text.slice(0, 200))}; can't understand '${term}'`);
    const [, label, operator, raw] = match as unknown as [string, string, string, string];
    const wanted = raw.trim().replace(/\\([\\,=])/g, '$1');
    const read = fieldReader(label, kind);
    if (!read) throw badRequest(`field label not supported: ${label}`);
    const negated = operator === '!=';
    if (label === 'metadata.name' && !negated) name = wanted;
    terms.push((object) => (read(object) === wanted) !== negated);
  }
  return { matches: (object) => terms.every((t) => t(object)), ...(name !== undefined && { name }) };
}

/** At commas that are not escaped. */
const splitTerms = (text: string): string[] => text.split(/(?<!\\),/).filter((term) => term.trim() !== '');

function fieldReader(label: string, kind: KindDeclaration): ((object: KubeObject) => string) | undefined {
  if (label === 'metadata.name') return (object) => object.metadata.name;
  if (label === 'metadata.namespace' && kind.namespaced) return (object) => object.metadata.namespace ?? '';
  return Object.hasOwn(kind.fieldLabels, label) ? kind.fieldLabels[label] : undefined;
}

// What the page's script expects of the JSON and of its own tables; `make check` holds it to that.

export interface Limit {
  limit: string;
  text: string;
  measure: "tokens" | "input_tokens" | "output_tokens" | "requests" | "cost";
  period: string;
  model: string;
  source: string;
  scope: string;
  policy: string;
  amount: number;
  granted: number;
  used: number;
  reserved: number;
  remaining: number;
  percent: number;
  reset_at: string | null;
}

export interface Sums {
  requests: number;
  input_tokens: number;
  output_tokens: number;
  total_tokens: number;
  cost_usd: number | null;
  estimated_requests: number;
}

export interface Grant {
  id: string;
  kind: "grant" | "reset" | "revoke";
  scope: string;
  measure: Limit["measure"];
  period: string;
  model: string;
  source: string;
  amount: number;
  reason: string;
  expires_at: string;
  holds: boolean;
}

export interface Reply {
  at: string;
  model: string;
  running: boolean;
  estimated: boolean;
  input_tokens: number;
  output_tokens: number;
  cost_usd: number | null;
}

export interface Me {
  user_id: string;
  email: string;
  name: string;
  role: string;
  groups: string[];
  policy: string;
  exempt: boolean;
  limits: Limit[];
  today: (Sums & { model: string })[];
  month: (Sums & { model: string })[];
  days: (Sums & { day: string })[];
  replies: Reply[];
  grants: Grant[];
  soft_limit_percent: number;
}

export interface State {
  me: Me | null;
  period: string;
  draft: { text: string; loaded: string } | null;
  turn: number;
}

export interface Column<Row = any> {
  key: string;
  name: string;
  kind?: string;
  show: (row: Row) => unknown;
  value: (row: Row) => string | number;
}

export interface TableOptions<Row = any> {
  order?: { key: string; sign: number };
  search?: string;
  beside?: unknown;
  plain?: boolean;
  kind?: (row: Row) => string;
}

"""What records usually look like: the dictionary with which stored bodies are compressed.

A compressed body only says how it differs from this text, so the names of fields and the usual values
cost next to nothing. Every stored body needs the very text it was made with: `SAMPLE_1` never changes.
Should records come to look different, a second sample gets a number of its own beside the first.
"""

from __future__ import annotations

__all__ = ["SAMPLE_1"]

SAMPLE_1 = (
    b'{"user_id":"","account_id":"default","version":2,"assets":{"USDT":{"free":"1000","reserved":"250","as_of":17000000'
    b'00000000,"tradable":true,"listed_at":1700000000000000},"BTC":{"free":"0.5"},"ETH":{"free":"2"}},"reservations":{'
    b'"key":{"asset":"USDT","amount":"100","expires_at":1700000000000000,"status":"settled","spent":"99.5","received"'
    b':{"BTC":"0.001"}}},"resolved":[],"applied":"","updated_at":1700000000000000}'
    b'{"trade_id":"","user_id":"","version":3,"day":"2026-11-22","payload":""}'
    b'{"trade_id":"trade:","user_id":"user","symbol":"ETH/USDT:USDT","side":"sell","amount":"1.5","amount_ordered":"2",'
    b'"account_id":"main","exchange":"binance","market":"linear","idempotency_key":"","version":4,"filled":"1.5",'
    b'"closed":"1.5","price":"2000","contract_size":"0.01","leverage":"10","fills":[{"fill_id":"1","role":"entry","amount":"0.5",'
    b'"price":"2000.5","fee":"0.001","fee_currency":"BNB","at":1700000000000000,"order_id":"1"},{"fill_id":":exit","role":'
    b'"exit","amount":"1","price":"2100","fee":"2","fee_currency":"USDT","at":1700000000000000}],"entry_cost":"3000",'
    b'"exit_value":"3150","open_cost":"1000","held_fees":"0.001","entry_fee":"1.5","exit_fee":"1.6","open_fee":"0.5",'
    b'"fees":{"USDT":"3.1","BNB":"0.001","BTC":"0.0001"},"fee_unpriced":true,"funding":"-0.5","interest":"0.1",'
    b'"pnl_gross":"150","pnl_net":"146.9","pnl_cash_net":"146.9","roi_net":"0.048966666666666667","pnl_reported":"146.9",'
    b'"pnl_as_of":1700000000000000,"roi_reported":"4.9","stop_loss":"1900","take_profit":"2200","liquidation_price":"1000",'
    b'"status":"completed","outcome":"win","close_reason":"take_profit","source":"backtest","strategy":"mean_reversion",'
    b'"signals":{"rsi":-1,"macd":1,"ema":0,"sma":0.5,"bollinger":1,"combined":1},"signal_metrics":{"rsi":31.5,"macd":0.01,'
    b'"confidence":0.8,"score":1.2},"market_conditions":{"trend":"up","regime":"bull","volatility":0.25,"volume":1000.5,'
    b'"spread":0.01},"symbol_group":"majors","success_label":"success","deposit":"1000","related_trade_id":"trade:",'
    b'"created_at":1700000000000000,"opened_at":1700000000000000,"closed_at":1700000000000000,"updated_at":1700000000000000,'
    b'"extra":{"timestamp":"2026-11-22T10:00:00Z","timeframe":"5m","order_type":"limit","exit_reason":"roi","enter_tag":"",'
    b'"is_open":false,"min_rate":0.1,"max_rate":0.2},"notes":["legacy_ambiguous"],"payload":"","applied":"","field_times":{'
    b'"stop_loss":1700000000000000,"status":1700000000000000}}'
    b'{"trade_id":"0193","user_id":"user-1","symbol":"SOL/USDT","side":"buy","amount":"0.25","exchange":"kraken","version":2,'
    b'"filled":"0.25","closed":"0.25","price":"100","fills":[{"fill_id":"0193:exit","role":"exit","amount":"0.25","price":"105",'
    b'"fee":"0.01","at":1700000000000000}],"entry_cost":"25","exit_value":"26.25","fees":{"USDT":"0.05"},"pnl_gross":"1.25",'
    b'"pnl_net":"1.2","pnl_cash_net":"1.2","roi_net":"0.048","status":"completed","outcome":"loss","strategy":"breakout",'
    b'"signals":{"rsi":1},"created_at":1700000000000000,"opened_at":1700000000000000,"closed_at":1700000000000000,'
    b'"updated_at":1700000000000000,"payload":"","applied":""}'
    b'{"trade_id":"0193","user_id":"user-2","symbol":"BTC/USDT","side":"buy","amount":"0.1","exchange":"binance",'
    b'"filled":"0.1","price":"20000","fills":[{"fill_id":"0193:entry","role":"entry","amount":"0.1","price":"20000",'
    b'"at":1700000000000000}],"entry_cost":"2000","open_cost":"2000","status":"filled","strategy":"momentum",'
    b'"signals":{"rsi":-1,"combined":1},"market_conditions":{"trend":"flat","volatility":0.42},'
    b'"created_at":1700000000000000,"opened_at":1700000000000000,"updated_at":1700000000000000,"payload":""}'
)

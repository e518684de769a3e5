// How libFuzzer changes the inputs of the services' fuzzers: as calls and as messages, so that what comes out
// is mostly a conversation again, with one thing in it that is not as it was.
#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "tests/fuzz/served.h"

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

namespace quire::fuzz {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

// An entry that can be changed.
struct Part {
  int call;
  std::string bytes;
};

std::vector<Part> PartsOf(const uint8_t* data, size_t size) {
  std::vector<Part> parts;
  for (const Entry& entry : Entries({data, size}, Calls()))
    parts.push_back({entry.call, std::string(AsString(entry.bytes))});
  return parts;
}

// 0: it would be too long.
size_t Write(const std::vector<Part>& parts, uint8_t* data, size_t max_size) {
  std::string out;
  for (const Part& part : parts) {
    if (part.bytes.size() > std::numeric_limits<uint16_t>::max()) return 0;
    out += static_cast<char>(part.call);
    out += static_cast<char>(part.bytes.size() & 255);
    out += static_cast<char>(part.bytes.size() >> 8);
    out += part.bytes;
  }
  if (out.size() > max_size) return 0;
  std::memcpy(data, out.data(), out.size());
  return out.size();
}

class Mutation {
 public:
  Mutation(unsigned seed, std::vector<Part>* parts) : random_(seed), parts_(*parts) {
    for (const Part& part : parts_) {
      if (std::unique_ptr<Message> message = Read(part)) Collect(*message);
    }
  }

  void Run() {
    constexpr size_t kKinds = 12;
    const size_t kind = parts_.empty() ? 0 : Below(kKinds);
    const size_t at = Below(parts_.size()), other = Below(parts_.size());
    switch (kind) {
      case 0:
        parts_.insert(parts_.begin() + static_cast<ptrdiff_t>(at), {static_cast<int>(Below(Calls())), ""});
        return ChangeMessage(&parts_[at]);
      case 1:
        parts_.erase(parts_.begin() + static_cast<ptrdiff_t>(at));
        return;
      case 2:
        parts_.insert(parts_.begin() + static_cast<ptrdiff_t>(at), Part(parts_[other]));
        return;
      case 3:
        return std::swap(parts_[at], parts_[other]);
      case 4:
        parts_[at].bytes = MutatedBytes(parts_[at].bytes);
        return;
      default:
        return ChangeMessage(&parts_[at]);
    }
  }

 private:
  size_t Below(size_t end) { return end == 0 ? 0 : random_() % end; }

  static std::unique_ptr<Message> Read(const Part& part) {
    const Message* form = RequestOf(part.call);
    if (form == nullptr) return nullptr;
    std::unique_ptr<Message> message(form->New());
    if (!message->ParseFromString(part.bytes)) message->Clear();
    return message;
  }

  void ChangeMessage(Part* part) {
    std::unique_ptr<Message> message = Read(*part);
    if (message == nullptr) {
      part->bytes = MutatedBytes(part->bytes);
      return;
    }
    Change(message.get());
    part->bytes = message->SerializeAsString();
  }

  std::string MutatedBytes(std::string bytes) {
    constexpr size_t kMore = 64;
    size_t size = bytes.size();
    bytes.resize(size + kMore);
    bytes.resize(LLVMFuzzerMutate(reinterpret_cast<uint8_t*>(bytes.data()), size, bytes.size()));
    return bytes;
  }

  // The values that the input has already: a key is worth something where it is another's parent.
  void Collect(const Message& message) {
    const Reflection& reflection = *message.GetReflection();
    std::vector<const FieldDescriptor*> fields;
    reflection.ListFields(message, &fields);
    for (const FieldDescriptor* field : fields) {
      const int count = field->is_repeated() ? reflection.FieldSize(message, field) : 1;
      for (int i = 0; i < count; ++i) {
        if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
          Collect(field->is_repeated() ? reflection.GetRepeatedMessage(message, field, i)
                                       : reflection.GetMessage(message, field));
        } else if (field->type() == FieldDescriptor::TYPE_BYTES) {
          values_.push_back(field->is_repeated() ? reflection.GetRepeatedString(message, field, i)
                                                 : reflection.GetString(message, field));
        }
      }
    }
  }

  // One field, somewhere within.
  void Change(Message* message) {
    const google::protobuf::Descriptor& type = *message->GetDescriptor();
    if (type.field_count() == 0) return;
    const FieldDescriptor* field =
        type.field(static_cast<int>(Below(static_cast<size_t>(type.field_count()))));
    if (field->is_repeated()) return ChangeRepeated(message, field);
    const Reflection& reflection = *message->GetReflection();
    if (Below(10) == 0) return reflection.ClearField(message, field);
    if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE)
      return Change(reflection.MutableMessage(message, field));
    Set(message, field);
  }

  void ChangeRepeated(Message* message, const FieldDescriptor* field) {
    const Reflection& reflection = *message->GetReflection();
    const int size = reflection.FieldSize(*message, field);
    const int at = static_cast<int>(Below(static_cast<size_t>(size)));
    const size_t kind = size == 0 ? 0 : Below(5);
    if (kind == 1) return reflection.RemoveLast(message, field);
    if (kind == 2) return reflection.SwapElements(message, field, at, size - 1);
    if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
      if (kind > 2) return Change(reflection.MutableRepeatedMessage(message, field, at));
      Message* added = reflection.AddMessage(message, field);
      if (size > 0) added->CopyFrom(reflection.GetRepeatedMessage(*message, field, at));
      return Change(added);
    }
    if (field->cpp_type() != FieldDescriptor::CPPTYPE_STRING) return;  // there are none
    if (kind > 2)
      reflection.SetRepeatedString(message, field, at,
                                   Value(reflection.GetRepeatedString(*message, field, at)));
    else
      reflection.AddString(message, field, Value(""));
  }

  std::string Value(const std::string& now) {
    if (!values_.empty() && Below(2) == 0) return values_[Below(values_.size())];
    return MutatedBytes(now);
  }

  uint64_t Number(uint64_t now) {
    switch (Below(6)) {
      case 0:
        return Below(8);
      case 1:
        return now + 1;
      case 2:
        return now - 1;
      case 3:
        return uint64_t{1} << Below(64);
      case 4:
        return (uint64_t{1} << Below(64)) - 1;
      default:
        return now ^ uint64_t { 1 } << Below(16);
    }
  }

  void Set(Message* message, const FieldDescriptor* field) {
    constexpr float kFloats[] = {0, -1, 1e-3F, 0.1F, 1, INFINITY, NAN};
    const Reflection& r = *message->GetReflection();
    switch (field->cpp_type()) {
      case FieldDescriptor::CPPTYPE_INT32:
        return r.SetInt32(message, field,
                          static_cast<int32_t>(Number(static_cast<uint64_t>(r.GetInt32(*message, field)))));
      case FieldDescriptor::CPPTYPE_UINT32:
        return r.SetUInt32(message, field, static_cast<uint32_t>(Number(r.GetUInt32(*message, field))));
      case FieldDescriptor::CPPTYPE_INT64:
        return r.SetInt64(message, field,
                          static_cast<int64_t>(Number(static_cast<uint64_t>(r.GetInt64(*message, field)))));
      case FieldDescriptor::CPPTYPE_UINT64:
        return r.SetUInt64(message, field, Number(r.GetUInt64(*message, field)));
      case FieldDescriptor::CPPTYPE_BOOL:
        return r.SetBool(message, field, !r.GetBool(*message, field));
      case FieldDescriptor::CPPTYPE_ENUM:
        return r.SetEnumValue(message, field, static_cast<int>(Below(6)));
      case FieldDescriptor::CPPTYPE_FLOAT:
        return r.SetFloat(message, field, kFloats[Below(std::size(kFloats))]);
      case FieldDescriptor::CPPTYPE_STRING: {
        std::string value = Value(r.GetString(*message, field));
        if (field->type() == FieldDescriptor::TYPE_STRING) {
          for (char& c : value) c = static_cast<char>(c & 0x7f);  // UTF-8
        }
        return r.SetString(message, field, value);
      }
      default:
        return;  // there are none
    }
  }

  std::minstd_rand random_;
  std::vector<Part>& parts_;
  std::vector<std::string> values_;
};

}  // namespace
}  // namespace quire::fuzz

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned seed) {
  using namespace quire::fuzz;
  constexpr unsigned kBlindly = 8;  // one in so many
  if (seed % kBlindly != 0) {
    std::vector<Part> parts = PartsOf(data, size);
    Mutation(seed, &parts).Run();
    if (size_t written = Write(parts, data, max_size); written > 0) return written;
  }
  return LLVMFuzzerMutate(data, size, max_size);
}

// The first calls of one conversation and the last ones of another.
extern "C" size_t LLVMFuzzerCustomCrossOver(const uint8_t* a, size_t a_size, const uint8_t* b, size_t b_size,
                                            uint8_t* out, size_t max_size, unsigned seed) {
  using namespace quire::fuzz;
  std::minstd_rand random(seed);
  std::vector<Part> parts = PartsOf(a, a_size), last = PartsOf(b, b_size);
  parts.resize(parts.empty() ? 0 : random() % parts.size() + 1);
  if (!last.empty())
    parts.insert(parts.end(), last.begin() + static_cast<ptrdiff_t>(random() % last.size()), last.end());
  return Write(parts, out, max_size);
}
